"""Helpers that users import by name: `from sentence_transformers.util import cos_sim`.

`NAMES` says which submodule each name lives in; a name is looked up when it is first used, so this package imports
nothing, torch least of all.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

NAMES = {
    "LoggingHandler": "util.logging",
    "ORIGINAL_TRANSFORMER_MODELS": "util.misc",
    "SimilarityFunction": "similarity",
    "_convert_to_batch": "util.tensor",
    "_convert_to_batch_tensor": "util.tensor",
    "_convert_to_tensor": "util.tensor",
    "_move_tensors_to_cpu": "util.tensor",
    "all_gather": "util.distributed",
    "all_gather_padded": "util.distributed",
    "all_gather_with_grad": "util.distributed",
    "append_to_last_row": "util.misc",
    "batch_to_device": "util.tensor",
    "cat_padded_token_embeddings": "util.tensor",
    "check_package_availability": "util.environment",
    "check_teacher_targets": "util.misc",
    "check_version_requirements": "util.environment",
    "community_detection": "search.exact",
    "compute_count_vector": "util.tensor",
    "cos_sim": "similarity",
    "disable_datasets_caching": "util.misc",
    "disable_logging": "util.misc",
    "disabled_tqdm": "storage.file_io",
    "distributed_evaluation": "util.distributed",
    "dot_score": "similarity",
    "euclidean_sim": "similarity",
    "fullname": "util.misc",
    "get_device_name": "util.environment",
    "get_rank": "util.distributed",
    "get_world_size": "util.distributed",
    "http_get": "storage.file_io",
    "import_from_string": "util.misc",
    "import_module_class": "util.misc",
    "information_retrieval": "search.exact",
    "install_logger": "util.logging",
    "is_accelerate_available": "util.environment",
    "is_datasets_available": "util.environment",
    "is_dist_initialized": "util.environment",
    "is_sentence_transformer_model": "storage.file_io",
    "is_training_available": "util.environment",
    "load_dir_path": "storage.file_io",
    "load_file_path": "storage.file_io",
    "manhattan_sim": "similarity",
    "maxsim": "similarity",
    "maxsim_pairwise": "similarity",
    "mean_maxsim": "similarity",
    "mean_maxsim_pairwise": "similarity",
    "mine_hard_negatives": "search.hard_negatives",
    "normalize_embeddings": "util.tensor",
    "pairwise_angle_sim": "similarity",
    "pairwise_cos_sim": "similarity",
    "pairwise_dot_score": "similarity",
    "pairwise_euclidean_sim": "similarity",
    "pairwise_manhattan_sim": "similarity",
    "paraphrase_mining": "search.exact",
    "paraphrase_mining_embeddings": "search.exact",
    "pytorch_cos_sim": "similarity",
    "quantize_embeddings": "quantization",
    "repad_flattened_features": "util.tensor",
    "resolve_ids": "training.resolve_ids",
    "save_to_hub_args_decorator": "util.misc",
    "select_max_active_dims": "util.tensor",
    "semantic_search": "search.exact",
    "similarity_fct_name": "util.misc",
    "stack_padded_token_embeddings": "util.tensor",
    "to_scipy_coo": "util.tensor",
    "truncate_embeddings": "util.tensor",
    "export_dynamic_quantized_onnx_model": "backends.graph_quantize",
    "export_optimized_onnx_model": "backends.graph_quantize",
    "export_static_quantized_openvino_model": "backends.graph_quantize",
}

__all__ = sorted(NAMES)


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"sentence_transformers.{NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES})
