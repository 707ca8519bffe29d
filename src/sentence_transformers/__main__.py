"""`python -m sentence_transformers`: the command line."""

from sentence_transformers.cli import main

if __name__ == "__main__":
    main()
