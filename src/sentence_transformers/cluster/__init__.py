"""Past one machine: data sets encoded, or scored, on Ray. `encode` is the door; `sizing` says beforehand what it takes.

from sentence_transformers.cluster import encode_dataset
"""

from sentence_transformers import _names

_names.open_door(__name__)
