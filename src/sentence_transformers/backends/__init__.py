"""How a transformer computes: the runners (`backends.runner`), what they are made of, and how they are loaded."""
