"""The code blocks of `page.md`, mended where the page's columns broke them, and grouped into stories.

A reader pastes the blocks of a section one after the other; a story is such a run, in one namespace. `MENDED` undoes
line breaks that the page's layout put where Python allows none. `FILLED` replaces the elisions (`, ...]`). `GIVEN` is
what a section's text tells the reader to have: a data loader, the imports of an earlier section. Nothing else differs
from the page.
"""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).with_name("page.md")

MENDED = {
    "import SentenceTransformer,\nSentenceTransformerTrainer": "import SentenceTransformer, SentenceTransformerTrainer",
    "# example STS\ndataset\n": "# example STS dataset\n",
    "dense vector\ndepending on model": "dense vector depending on model",
}
FILLED = {
    '["...", "...", "..."]': '["3.7 million people live in Berlin.", "Bread and butter.", "Berlin is a city."]',
    '"label":1.0}, ...]': '"label":1.0}, {"sentence1":"A dog barks", "sentence2":"Rain falls", "label":0.0}] * 4',
}
MTEB = """
    import mteb
    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer("all-MiniLM-L6-v2")
    """
GIVEN = {
    "cross_encoder_scores": """
        from torch.utils.data import DataLoader
        rows = [("A man eats.", "Someone eats.", 0.9), ("A man eats.", "Rain falls.", 0.1)] * 4
        rows = [{"text1": first, "text2": second, "label": score} for first, second, score in rows]
        train_dataloader = DataLoader(rows, batch_size=4)
        """,
    "cross_encoder_classes": """
        from torch.utils.data import DataLoader
        rows = [("Where is it?", "It is here.", 1), ("Where is it?", "Rain falls.", 0)] * 4
        rows = [{"text1": first, "text2": second, "label": label} for first, second, label in rows]
        train_loader = DataLoader(rows, batch_size=4)
        """,
    "cross_lingual": "from sentence_transformers import SentenceTransformerTrainer, losses",
    "mteb_filters": MTEB,
    "mteb_benchmark": MTEB,
    "speed": """
        from sentence_transformers import SentenceTransformer
        sentences = ["This is an example sentence", "Each sentence is encoded separately"]
        """,
}


STORIES = {  # name -> numbers of the blocks that are run one after the other
    "encode": (1,),
    "similarity": (2, 3),
    "train": (4, 5),
    "dataset": (6, 7),
    "train_sts": (8,),
    "cross_encoder": (9, 10),
    "cross_encoder_scores": (11, 12),
    "cross_encoder_classes": (13,),
    "sparse": (14,),
    "cross_lingual": (15,),
    "mteb": (17, 18, 21),
    "mteb_filters": (19, 21),
    "mteb_benchmark": (20, 21),
    "speed": (22,),
    "binary": (23,),
    "scalar": (24,),
}
COMMANDS = {16: "pip install mteb"}  # blocks that are no Python


def blocks() -> dict[int, str]:
    """The page's blocks by number, word for word."""
    found = re.findall(r"^## (\d+) .*?\n\n```\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return {int(number): code for number, code in found}


def mended(code: str) -> str:
    """A block, or two that belong together, as Python."""
    for broken, whole in (MENDED | FILLED).items():
        code = code.replace(broken, whole)
    return code
