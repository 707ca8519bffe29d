# Written by `python -m tests.stubs` from the tables of names: what type checkers and editors see here.
from sentence_transformers.cluster.encode import Summary as Summary
from sentence_transformers.cluster.encode import encode_dataset as encode_dataset
from sentence_transformers.cluster.sizing import Estimate as Estimate
from sentence_transformers.cluster.sizing import estimate as estimate
