"""The names this library is known by elsewhere, and where they live here: one table, no file per alias.

People's code and saved models name classes by dotted paths of several generations:

    sentence_transformers.models.Pooling                                    version 2 to 4, and their saved models
    sentence_transformers.models.Pooling.Pooling                            older saved models
    sentence_transformers.sentence_transformer.modules.pooling.Pooling      today's canonical path

Three tables say it all. `HOME`: public name -> module here. `ALIASES`: module path elsewhere -> module here, the same
module object under two names. `PACKAGES`: package path elsewhere -> the public names it exports. `install` puts one
finder on `sys.meta_path`, which makes aliases and packages when they are first imported and nothing before that.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentence_transformers.storage.files import Source

ROOT = "sentence_transformers"
REMOTE = "transformers_modules."  # where transformers puts classes that come with a model
FOREIGN = {"pylate.models.Dense.Dense": "Dense"}  # types in models of other libraries -> public name

_INPUT_TYPES = (
    "AudioDict AudioInput ImageInput MODALITY_TO_PROCESSOR_ARG MULTIMODAL_DICT_KEYS MessageDict MessageFormat "
    "MessageInput Modality ModalityConfig ModalityParams MultimodalInput PairInput PairableInput ProcessingKwargs "
    "ProcessorArgName QueryExpansionConfig SingleInput TextInput VideoDict VideoInput format_modality "
    "infer_batch_modality infer_modality is_audio_url_or_path is_image_url_or_path is_message_dict "
    "is_video_url_or_path raise_unsupported_modality_error"
)

# public name -> module it is defined in, here
HOME: dict[str, str] = {
    # encoders
    "SentenceTransformer": "encoders.sentence_transformer",
    "CrossEncoder": "encoders.cross_encoder",
    "SparseEncoder": "encoders.sparse_encoder",
    "MultiVectorEncoder": "encoders.multi_vector_encoder",
    "BaseModel": "encoders.base",
    "PeftAdapterMixin": "encoders.peft",
    "peft_wrapper": "encoders.peft",
    # modules
    "Module": "modules.base",
    "InputModule": "modules.base",
    "Transformer": "modules.transformer",
    "Pooling": "modules.pooling",
    "Dense": "modules.dense",
    "Normalize": "modules.normalize",
    "Router": "modules.router",
    "Asym": "modules.router",
    "StaticEmbedding": "modules.static_embedding",
    "LogitScore": "modules.logit_score",
    "SpladePooling": "modules.splade_pooling",
    "SparseAutoEncoder": "modules.sparse_auto_encoder",
    "TiedTranspose": "modules.sparse_auto_encoder",
    "SparseStaticEmbedding": "modules.sparse_static_embedding",
    "MLMTransformer": "modules.mlm_transformer",
    "MultiVectorMask": "modules.multi_vector_mask",
    "BaseTokenPooling": "modules.token_pooling",
    "HierarchicalTokenPooling": "modules.token_pooling",
    "LambdaTokenPooling": "modules.token_pooling",
    "BoW": "modules.bow",
    "CNN": "modules.cnn",
    "Dropout": "modules.dropout",
    "LayerNorm": "modules.layer_norm",
    "LSTM": "modules.lstm",
    "WeightedLayerPooling": "modules.weighted_layer_pooling",
    "WordEmbeddings": "modules.word_embeddings",
    "WordWeights": "modules.word_weights",
    "WordTokenizer": "modules.tokenizer.word",
    "TransformersTokenizerWrapper": "modules.tokenizer.word",
    "ENGLISH_STOP_WORDS": "modules.tokenizer.word",
    "WhitespaceTokenizer": "modules.tokenizer.whitespace",
    "PhraseTokenizer": "modules.tokenizer.phrase",
    **dict.fromkeys(_INPUT_TYPES.split(), "modules.modality"),
    "InputFormatter": "modules.input_formatter",
    # backends
    "load_onnx_model": "backends.graph_load",
    "load_openvino_model": "backends.graph_load",
    "export_optimized_onnx_model": "backends.graph_quantize",
    "export_dynamic_quantized_onnx_model": "backends.graph_quantize",
    "export_static_quantized_openvino_model": "backends.graph_quantize",
    "backend_should_export": "backends.utils",
    "backend_warn_to_save": "backends.utils",
    "save_or_push_to_hub_model": "backends.utils",
    "_save_pretrained_wrapper": "backends.utils",
    # model cards
    "BaseModelCardData": "storage.model_card",
    "SentenceTransformerModelCardData": "storage.model_card",
    "CrossEncoderModelCardData": "storage.model_card",
    "SparseEncoderModelCardData": "storage.model_card",
    "MultiVectorEncoderModelCardData": "storage.model_card",
    "generate_model_card": "storage.model_card",
    "BaseModelCardCallback": "training.callbacks",
    "SentenceTransformerModelCardCallback": "training.callbacks",
    "ModelCardCallback": "training.callbacks",
    "CrossEncoderModelCardCallback": "training.callbacks",
    # training
    "BaseTrainer": "training.trainer",
    "SentenceTransformerTrainer": "training.trainers",
    "CrossEncoderTrainer": "training.trainers",
    "BaseTrainingArguments": "training.arguments",
    "SentenceTransformerTrainingArguments": "training.arguments",
    "CrossEncoderTrainingArguments": "training.arguments",
    "BatchSamplers": "training.arguments",
    "MultiDatasetBatchSamplers": "training.arguments",
    "SparseEncoderTrainer": "training.trainers",
    "SparseEncoderTrainingArguments": "training.arguments",
    "SparseEncoderDataCollator": "training.collator",
    "SparseEncoderModelCardCallback": "training.callbacks",
    "SpladeRegularizerWeightSchedulerCallback": "training.callbacks",
    "SchedulerType": "training.callbacks",
    "MultiVectorEncoderTrainer": "training.trainers",
    "MultiVectorEncoderTrainingArguments": "training.arguments",
    "MultiVectorEncoderDataCollator": "training.collator",
    "MultiVectorEncoderModelCardCallback": "training.callbacks",
    "BaseDataCollator": "training.collator",
    "SentenceTransformerDataCollator": "training.collator",
    "CrossEncoderDataCollator": "training.collator",
    **dict.fromkeys(["EvaluatorCallback", "FitMixinLoss", "OriginalCallback", "SaveModelCallback"], "training.fit"),
    "SetEpochMixin": "training.samplers",
    "DefaultBatchSampler": "training.samplers",
    "GroupByLabelBatchSampler": "training.samplers",
    "NoDuplicatesBatchSampler": "training.samplers",
    "MultiDatasetDefaultBatchSampler": "training.samplers",
    "RoundRobinBatchSampler": "training.samplers",
    "ProportionalBatchSampler": "training.samplers",
    "InputExample": "util.input_example",
    "LabelSentenceReader": "training.legacy_readers",
    "NLIDataReader": "training.legacy_readers",
    "PairedFilesReader": "training.legacy_readers",
    "STSDataReader": "training.legacy_readers",
    "STSBenchmarkDataReader": "training.legacy_readers",
    "TripletReader": "training.legacy_readers",
    "SentencesDataset": "training.datasets",
    "ParallelSentencesDataset": "training.datasets",
    "SentenceLabelDataset": "training.datasets",
    "DenoisingAutoEncoderDataset": "training.datasets",
    "NoDuplicatesDataLoader": "training.datasets",
    "resolve_ids": "training.resolve_ids",
    "mine_hard_negatives": "search.hard_negatives",
    # losses
    "CoSENTLoss": "losses.pairs",
    "AnglELoss": "losses.pairs",
    "CosineSimilarityLoss": "losses.pairs",
    "ContrastiveLoss": "losses.pairs",
    "SiameseDistanceMetric": "losses.pairs",
    "OnlineContrastiveLoss": "losses.pairs",
    "SoftmaxLoss": "losses.softmax",
    "MultipleNegativesRankingLoss": "losses.in_batch_negatives",
    "MultipleNegativesSymmetricRankingLoss": "losses.in_batch_negatives",
    "CachedMultipleNegativesRankingLoss": "losses.in_batch_negatives",
    "CachedMultipleNegativesSymmetricRankingLoss": "losses.in_batch_negatives",
    "GISTEmbedLoss": "losses.guided",
    "CachedGISTEmbedLoss": "losses.guided",
    "MegaBatchMarginLoss": "losses.mega_batch",
    "TripletLoss": "losses.triplets",
    "TripletDistanceMetric": "losses.triplets",
    "BatchHardTripletLossDistanceFunction": "losses.triplets",
    "BatchAllTripletLoss": "losses.triplets",
    "BatchHardTripletLoss": "losses.triplets",
    "BatchHardSoftMarginTripletLoss": "losses.triplets",
    "BatchSemiHardTripletLoss": "losses.triplets",
    "ContrastiveTensionLoss": "losses.contrastive_tension",
    "ContrastiveTensionLossInBatchNegatives": "losses.contrastive_tension",
    "ContrastiveTensionDataLoader": "losses.contrastive_tension",
    "DenoisingAutoEncoderLoss": "losses.denoising",
    "EmbedDistillLoss": "losses.distillation",
    "MSELoss": "losses.distillation",
    "MarginMSELoss": "losses.distillation",
    "DistillKLDivLoss": "losses.distillation",
    "MatryoshkaLoss": "losses.matryoshka",
    "AdaptiveLayerLoss": "losses.adaptive_layer",
    "Matryoshka2dLoss": "losses.adaptive_layer",
    "GlobalOrthogonalRegularizationLoss": "losses.orthogonal",
    "BinaryCrossEntropyLoss": "losses.cross",
    "CrossEntropyLoss": "losses.cross",
    "ListNetLoss": "losses.listwise",
    "ListMLELoss": "losses.listwise",
    "PListMLELoss": "losses.listwise",
    "PListMLELambdaWeight": "losses.listwise",
    "ADRMSELoss": "losses.listwise",
    "LambdaLoss": "losses.lambda_loss",
    "RankNetLoss": "losses.lambda_loss",
    "NoWeightingScheme": "losses.lambda_loss",
    "NDCGLoss1Scheme": "losses.lambda_loss",
    "NDCGLoss2Scheme": "losses.lambda_loss",
    "LambdaRankScheme": "losses.lambda_loss",
    "NDCGLoss2PPScheme": "losses.lambda_loss",
    **dict.fromkeys(
        [
            "SparseMultipleNegativesRankingLoss",
            "SparseTripletLoss",
            "SparseCoSENTLoss",
            "SparseAnglELoss",
            "SparseCosineSimilarityLoss",
            "SparseMarginMSELoss",
            "SparseDistillKLDivLoss",
            "SparseMSELoss",
        ],
        "losses.sparse",
    ),
    "SpladeLoss": "losses.splade",
    "CachedSpladeLoss": "losses.splade",
    "FlopsLoss": "losses.splade",
    "CSRLoss": "losses.csr",
    "CSRReconstructionLoss": "losses.csr",
    "MultiVectorMultipleNegativesRankingLoss": "losses.multi_vector",
    "CachedMultiVectorMultipleNegativesRankingLoss": "losses.multi_vector",
    "MultiVectorDistillKLDivLoss": "losses.multi_vector",
    "MultiVectorMarginMSELoss": "losses.multi_vector",
    "CachedLossMixin": "losses.gradient_cache",
    "RandContext": "losses.gradient_cache",
    "uses_gradient_cache": "losses.gradient_cache",
    "column_merging_disabled": "losses.merged_forward",
    "has_static_embedding_input": "losses.merged_forward",
    "merge_feature_batches": "losses.merged_forward",
    "embed_columns": "losses.merged_forward",
    "embed_columns_padded": "losses.multi_vector",
    # evaluation
    "BaseEvaluator": "evaluation.base",
    "SentenceEvaluator": "evaluation.base",
    "SequentialEvaluator": "evaluation.base",
    "EmbeddingSimilarityEvaluator": "evaluation.embedding_similarity",
    "BinaryClassificationEvaluator": "evaluation.binary_classification",
    "TripletEvaluator": "evaluation.triplet",
    "InformationRetrievalEvaluator": "evaluation.information_retrieval",
    "NanoBEIREvaluator": "evaluation.nano_beir",
    "RerankingEvaluator": "evaluation.reranking",
    "ParaphraseMiningEvaluator": "evaluation.paraphrase_mining",
    "TranslationEvaluator": "evaluation.translation",
    "MSEEvaluator": "evaluation.mse",
    "MSEEvaluatorFromDataFrame": "evaluation.mse",
    "LabelAccuracyEvaluator": "evaluation.label_accuracy",
    "CrossEncoderClassificationEvaluator": "evaluation.cross_encoder",
    "CrossEncoderCorrelationEvaluator": "evaluation.cross_encoder",
    "CrossEncoderRerankingEvaluator": "evaluation.cross_encoder",
    "CrossEncoderNanoBEIREvaluator": "evaluation.cross_encoder",
    "CEBinaryAccuracyEvaluator": "evaluation.cross_encoder",
    "CEBinaryClassificationEvaluator": "evaluation.cross_encoder",
    "CECorrelationEvaluator": "evaluation.cross_encoder",
    "CEF1Evaluator": "evaluation.cross_encoder",
    "CERerankingEvaluator": "evaluation.cross_encoder",
    "CESoftmaxAccuracyEvaluator": "evaluation.cross_encoder",
    **{
        f"Sparse{name}Evaluator": "evaluation.sparse"
        for name in [
            "BinaryClassification",
            "EmbeddingSimilarity",
            "InformationRetrieval",
            "MSE",
            "NanoBEIR",
            "Reranking",
            "Translation",
            "Triplet",
        ]
    },
    "ReciprocalRankFusionEvaluator": "evaluation.rank_fusion",
    **{
        f"MultiVector{name}Evaluator": "evaluation.multi_vector"
        for name in ["Distillation", "InformationRetrieval", "NanoBEIR", "Reranking", "Triplet"]
    },
    # functions
    "maxsim": "late_interaction",
    "maxsim_pairwise": "late_interaction",
    "colbert_scores": "late_interaction",
    "colbert_scores_pairwise": "late_interaction",
    "colbert_kd_scores": "late_interaction",
    "mean_colbert_scores": "late_interaction",
    "mean_colbert_scores_pairwise": "late_interaction",
    "mean_colbert_kd_scores": "late_interaction",
    "xtr_scores": "late_interaction",
    "xtr_scores_pairwise": "late_interaction",
    "xtr_kd_scores": "late_interaction",
    "XTRScores": "late_interaction",
    "XTRKDScores": "late_interaction",
    "SimilarityFunction": "similarity",
    "quantize_embeddings": "quantization",
    "search_quantized": "search.quantized_search",
    "semantic_search_faiss": "search.faiss_usearch",
    "DATASET_NAME_TO_HUMAN_READABLE": "evaluation.nano_beir",
    "semantic_search_usearch": "search.faiss_usearch",
    # search
    "Index": "index.index",
    "Hit": "index.search",
    "Passage": "engine.chunking",
    "SparseIndex": "search.sparse_index",
    "semantic_search_qdrant": "connectors.search_engines.qdrant",
    "semantic_search_elasticsearch": "connectors.search_engines.elasticsearch",
    "semantic_search_opensearch": "connectors.search_engines.opensearch",
    "semantic_search_seismic": "connectors.search_engines.seismic",
    # vector databases
    "Database": "connectors.common",
    "QdrantDatabase": "connectors.qdrant",
    "ElasticsearchDatabase": "connectors.elasticsearch",
    "OpenSearchDatabase": "connectors.opensearch",
    "PostgresDatabase": "connectors.postgres",
    "upload": "connectors.upload",
    # many machines
    "encode_dataset": "cluster.encode",
    "Summary": "cluster.encode",
    "estimate": "cluster.sizing",
    "Estimate": "cluster.sizing",
    "LoggingHandler": "util.logging",
    # for those who write such things themselves
    **dict.fromkeys(
        [
            "cross_encoder_init_args_decorator",
            "cross_encoder_predict_rank_args_decorator",
            "deprecated_kwargs",
            "transformer_kwargs_decorator",
        ],
        "_deprecation",
    ),
    "setup_deprecated_module_imports": "_names",
    "suggest_extra_on_exception": "util.environment",
}

_TEXT_MODULES = (
    "Transformer StaticEmbedding Asym BoW CNN Dense Dropout LayerNorm LSTM Normalize Pooling WeightedLayerPooling "
    "WordEmbeddings WordWeights Module InputModule Router"
)

_CROSS_MODULES = "Dense InputModule Module Asym Router Transformer LogitScore"
_SPARSE_MODULES = (
    "Dense InputModule Module Asym Router Transformer MLMTransformer SparseAutoEncoder SparseStaticEmbedding "
    "SpladePooling"
)

_MULTI_VECTOR_MODULES = "BaseTokenPooling HierarchicalTokenPooling LambdaTokenPooling MultiVectorMask"

_LOSSES = {  # public name -> module of the existing library
    "AdaptiveLayerLoss": "adaptive_layer",
    "AnglELoss": "angle",
    "BatchAllTripletLoss": "batch_all_triplet",
    "BatchHardSoftMarginTripletLoss": "batch_hard_soft_margin_triplet",
    "BatchHardTripletLoss": "batch_hard_triplet",
    "BatchHardTripletLossDistanceFunction": "batch_hard_triplet",
    "BatchSemiHardTripletLoss": "batch_semi_hard_triplet",
    "CachedGISTEmbedLoss": "cached_gist_embed",
    "CachedMultipleNegativesRankingLoss": "cached_multiple_negatives_ranking",
    "CachedMultipleNegativesSymmetricRankingLoss": "cached_multiple_negatives_symmetric_ranking",
    "CoSENTLoss": "cosent",
    "ContrastiveLoss": "contrastive",
    "ContrastiveTensionDataLoader": "contrastive_tension",
    "ContrastiveTensionLoss": "contrastive_tension",
    "ContrastiveTensionLossInBatchNegatives": "contrastive_tension",
    "CosineSimilarityLoss": "cosine_similarity",
    "DenoisingAutoEncoderLoss": "denoising_auto_encoder",
    "DistillKLDivLoss": "distill_kl_div",
    "EmbedDistillLoss": "embed_distill",
    "GISTEmbedLoss": "gist_embed",
    "GlobalOrthogonalRegularizationLoss": "global_orthogonal_regularization",
    "MSELoss": "mse",
    "MarginMSELoss": "margin_mse",
    "Matryoshka2dLoss": "matryoshka_2d",
    "MatryoshkaLoss": "matryoshka",
    "MegaBatchMarginLoss": "mega_batch_margin",
    "MultipleNegativesRankingLoss": "multiple_negatives_ranking",
    "MultipleNegativesSymmetricRankingLoss": "multiple_negatives_symmetric_ranking",
    "OnlineContrastiveLoss": "online_contrastive",
    "SiameseDistanceMetric": "contrastive",
    "SoftmaxLoss": "softmax",
    "TripletDistanceMetric": "triplet",
    "TripletLoss": "triplet",
}
_CROSS_LOSSES = {
    "BinaryCrossEntropyLoss": "binary_cross_entropy",
    "CrossEntropyLoss": "cross_entropy",
    "MSELoss": "mse",
    "MarginMSELoss": "margin_mse",
    "MultipleNegativesRankingLoss": "multiple_negatives_ranking",
    "CachedMultipleNegativesRankingLoss": "cached_multiple_negatives_ranking",
    "ListNetLoss": "list_net",
    "ListMLELoss": "list_mle",
    "PListMLELoss": "plist_mle",
    "PListMLELambdaWeight": "plist_mle",
    "ADRMSELoss": "adr_mse",
    "LambdaLoss": "lambda_loss",
    "RankNetLoss": "rank_net",
    "NoWeightingScheme": "lambda_loss",
    "NDCGLoss1Scheme": "lambda_loss",
    "NDCGLoss2Scheme": "lambda_loss",
    "LambdaRankScheme": "lambda_loss",
    "NDCGLoss2PPScheme": "lambda_loss",
}
_SPARSE_LOSSES = {
    "CSRLoss": "csr",
    "CSRReconstructionLoss": "csr",
    "CachedSpladeLoss": "cached_splade",
    "FlopsLoss": "flops",
    "SparseAnglELoss": "sparse_angle",
    "SparseCoSENTLoss": "sparse_cosent",
    "SparseCosineSimilarityLoss": "sparse_cosine_similarity",
    "SparseDistillKLDivLoss": "sparse_distill_kl_div",
    "SparseMSELoss": "sparse_mse",
    "SparseMarginMSELoss": "sparse_margin_mse",
    "SparseMultipleNegativesRankingLoss": "sparse_multiple_negatives_ranking",
    "SparseTripletLoss": "sparse_triplet",
    "SpladeLoss": "splade",
}
_SPARSE_EVALUATORS = {
    "SparseBinaryClassificationEvaluator": "sparse_binary_classification",
    "SparseEmbeddingSimilarityEvaluator": "sparse_embedding_similarity",
    "SparseInformationRetrievalEvaluator": "sparse_information_retrieval",
    "SparseMSEEvaluator": "sparse_mse",
    "SparseNanoBEIREvaluator": "sparse_nano_beir",
    "SparseRerankingEvaluator": "sparse_reranking",
    "SparseTranslationEvaluator": "sparse_translation",
    "SparseTripletEvaluator": "sparse_triplet",
    "ReciprocalRankFusionEvaluator": "reciprocal_rank_fusion",
}
_MULTI_VECTOR_LOSSES = {
    "CachedMultiVectorMultipleNegativesRankingLoss": "cached_multiple_negatives_ranking",
    "MultiVectorDistillKLDivLoss": "distill_kl_div",
    "MultiVectorMarginMSELoss": "margin_mse",
    "MultiVectorMultipleNegativesRankingLoss": "multiple_negatives_ranking",
}
_MULTI_VECTOR_EVALUATORS = {
    "MultiVectorDistillationEvaluator": "distillation",
    "MultiVectorInformationRetrievalEvaluator": "information_retrieval",
    "MultiVectorNanoBEIREvaluator": "nano_beir",
    "MultiVectorRerankingEvaluator": "reranking",
    "MultiVectorTripletEvaluator": "triplet",
}
_EVALUATORS = {
    "BinaryClassificationEvaluator": "binary_classification",
    "EmbeddingSimilarityEvaluator": "embedding_similarity",
    "InformationRetrievalEvaluator": "information_retrieval",
    "LabelAccuracyEvaluator": "label_accuracy",
    "MSEEvaluator": "mse",
    "MSEEvaluatorFromDataFrame": "mse_from_dataframe",
    "NanoBEIREvaluator": "nano_beir",
    "ParaphraseMiningEvaluator": "paraphrase_mining",
    "RerankingEvaluator": "reranking",
    "TranslationEvaluator": "translation",
    "TripletEvaluator": "triplet",
}
_CROSS_EVALUATORS = {
    "CrossEncoderClassificationEvaluator": "classification",
    "CrossEncoderCorrelationEvaluator": "correlation",
    "CrossEncoderNanoBEIREvaluator": "nano_beir",
    "CrossEncoderRerankingEvaluator": "reranking",
    "CEBinaryAccuracyEvaluator": "deprecated",
    "CEBinaryClassificationEvaluator": "deprecated",
    "CECorrelationEvaluator": "deprecated",
    "CEF1Evaluator": "deprecated",
    "CERerankingEvaluator": "deprecated",
    "CESoftmaxAccuracyEvaluator": "deprecated",
}
_DATASETS = {
    "DenoisingAutoEncoderDataset": "denoising_auto_encoder",
    "NoDuplicatesDataLoader": "no_duplicates_dataloader",
    "ParallelSentencesDataset": "parallel_sentences",
    "SentencesDataset": "sentences",
    "SentenceLabelDataset": "sentence_label",
}
_READERS = {
    "InputExample": "input_example",
    "LabelSentenceReader": "label_sentence",
    "NLIDataReader": "nli_data",
    "PairedFilesReader": "paired_files",
    "STSDataReader": "sts_data",
    "STSBenchmarkDataReader": "sts_data",
    "TripletReader": "triplet",
}
_SAMPLERS = (
    "BatchSamplers DefaultBatchSampler GroupByLabelBatchSampler MultiDatasetBatchSamplers "
    "MultiDatasetDefaultBatchSampler NoDuplicatesBatchSampler ProportionalBatchSampler RoundRobinBatchSampler "
    "SetEpochMixin"
)
_EVALUATION = " ".join(
    ["BaseEvaluator", "SentenceEvaluator", "SequentialEvaluator", "SimilarityFunction", *_EVALUATORS]
)

# names that several kinds of models have: package elsewhere -> {public name -> module it is defined in, here}
TWINS: dict[str, dict[str, str]] = {
    "cross_encoder.losses": {
        "MSELoss": "losses.cross",
        "MarginMSELoss": "losses.cross",
        "MultipleNegativesRankingLoss": "losses.cross_negatives",
        "CachedMultipleNegativesRankingLoss": "losses.cross_negatives",
    },
}


def place(name: str, package: str = "") -> str:
    """The module here that defines a public name, as a package exports it."""
    return TWINS.get(package, {}).get(name) or HOME[name]


# package path elsewhere, or of a package here that is a front door -> the public names it exports
PACKAGES: dict[str, str] = {
    "base": (
        "BaseModel PeftAdapterMixin BaseDataCollator BaseTrainer BaseTrainingArguments BatchSamplers "
        "MultiDatasetBatchSamplers DefaultBatchSampler GroupByLabelBatchSampler NoDuplicatesBatchSampler "
        "MultiDatasetDefaultBatchSampler RoundRobinBatchSampler ProportionalBatchSampler"
    ),
    "base.evaluation": "BaseEvaluator SentenceEvaluator SequentialEvaluator",
    "base.losses": (
        "CachedLossMixin RandContext column_merging_disabled has_static_embedding_input uses_gradient_cache"
    ),
    "base.sampler": _SAMPLERS,
    "losses": " ".join(dict.fromkeys([*_LOSSES, *_CROSS_LOSSES, *_SPARSE_LOSSES, *_MULTI_VECTOR_LOSSES])),
    "cross_encoder.losses": " ".join(_CROSS_LOSSES),
    "cross_encoder.evaluation": " ".join(_CROSS_EVALUATORS),
    "datasets": " ".join(_DATASETS),
    "readers": " ".join(_READERS),
    "sampler": _SAMPLERS,
    "training_args": "SentenceTransformerTrainingArguments BatchSamplers MultiDatasetBatchSamplers",
    "sentence_transformer.losses": " ".join(_LOSSES),
    "sentence_transformer.datasets": " ".join(_DATASETS),
    "sentence_transformer.readers": " ".join(_READERS),
    "sentence_transformer.training_args": (
        "SentenceTransformerTrainingArguments BatchSamplers MultiDatasetBatchSamplers"
    ),
    "base.modules": "Dense InputModule Module Normalize Router Transformer",
    "sentence_transformer": (
        "SentenceTransformer SentenceTransformerModelCardData SentenceTransformerDataCollator "
        "SentenceTransformerTrainer SentenceTransformerTrainingArguments"
    ),
    "sentence_transformer.modules": _TEXT_MODULES,
    "sentence_transformer.evaluation": _EVALUATION,
    "cross_encoder": (
        "CrossEncoder CrossEncoderModelCardData CrossEncoderDataCollator CrossEncoderTrainer "
        "CrossEncoderTrainingArguments"
    ),
    "backend": (
        "load_onnx_model load_openvino_model export_optimized_onnx_model export_dynamic_quantized_onnx_model "
        "export_static_quantized_openvino_model backend_should_export backend_warn_to_save _save_pretrained_wrapper "
        "save_or_push_to_hub_model"
    ),
    "cross_encoder.modules": _CROSS_MODULES,
    "sparse_encoder": (
        "SparseEncoder SparseEncoderDataCollator SparseEncoderModelCardData SparseEncoderTrainer "
        "SparseEncoderTrainingArguments"
    ),
    "sparse_encoder.losses": " ".join(_SPARSE_LOSSES),
    "sparse_encoder.evaluation": " ".join(_SPARSE_EVALUATORS),
    "sparse_encoder.callbacks": "SpladeRegularizerWeightSchedulerCallback SchedulerType",
    "sparse_encoder.modules": _SPARSE_MODULES,
    "sparse_encoder.models": _SPARSE_MODULES,
    "multi_vector_encoder": (
        "MultiVectorEncoder MultiVectorEncoderDataCollator MultiVectorEncoderModelCardData MultiVectorEncoderTrainer "
        "MultiVectorEncoderTrainingArguments maxsim maxsim_pairwise"
    ),
    "multi_vector_encoder.losses": " ".join(_MULTI_VECTOR_LOSSES),
    "multi_vector_encoder.evaluation": " ".join(_MULTI_VECTOR_EVALUATORS),
    "multi_vector_encoder.modules": _MULTI_VECTOR_MODULES,
    "multi_vector_encoder.scoring": (
        "colbert_scores colbert_scores_pairwise colbert_kd_scores mean_colbert_scores mean_colbert_scores_pairwise "
        "mean_colbert_kd_scores XTRScores XTRKDScores xtr_scores xtr_scores_pairwise xtr_kd_scores"
    ),
    "models": _TEXT_MODULES,
    "evaluation": _EVALUATION,
    "sparse_encoder.search_engines": (
        "SparseIndex semantic_search_elasticsearch semantic_search_opensearch semantic_search_qdrant "
        "semantic_search_seismic"
    ),
    "cluster": "Estimate Summary encode_dataset estimate",
    "databases": "Database ElasticsearchDatabase OpenSearchDatabase PostgresDatabase QdrantDatabase upload",
}

# canonical module path elsewhere -> module here; a saved model names a class by the first path that leads to it
ALIASES: dict[str, str] = {
    "base.model": "encoders.base",
    "base.peft_mixin": "encoders.peft",
    "base.model_card": "storage.model_card",
    "base.modality": "modules.modality",
    "base.modality_types": "modules.modality",
    "base.merging": "encoders.merge",
    "backend.load": "backends.graph_load",
    "backend.optimize": "backends.graph_quantize",
    "backend.quantize": "backends.graph_quantize",
    "backend.utils": "backends.utils",
    "base.modules.module": "modules.base",
    "base.modules.input_module": "modules.base",
    "base.modules.transformer": "modules.transformer",
    "base.modules.normalize": "modules.normalize",
    "base.modules.dense": "modules.dense",
    "base.modules.router": "modules.router",
    "sentence_transformer.model": "encoders.sentence_transformer",
    "sentence_transformer.model_card": "storage.model_card",
    "sentence_transformer.modules.pooling": "modules.pooling",
    "sentence_transformer.modules.static_embedding": "modules.static_embedding",
    "sentence_transformer.modules.bow": "modules.bow",
    "sentence_transformer.modules.cnn": "modules.cnn",
    "sentence_transformer.modules.dropout": "modules.dropout",
    "sentence_transformer.modules.layer_norm": "modules.layer_norm",
    "sentence_transformer.modules.lstm": "modules.lstm",
    "sentence_transformer.modules.weighted_layer_pooling": "modules.weighted_layer_pooling",
    "sentence_transformer.modules.word_embeddings": "modules.word_embeddings",
    "sentence_transformer.modules.word_weights": "modules.word_weights",
    "sentence_transformer.modules.normalize": "modules.normalize",
    "sentence_transformer.modules.tokenizer": "modules.tokenizer",
    "sentence_transformer.modules.tokenizer.word": "modules.tokenizer.word",
    "sentence_transformer.modules.tokenizer.whitespace": "modules.tokenizer.whitespace",
    "sentence_transformer.modules.tokenizer.phrase": "modules.tokenizer.phrase",
    "cross_encoder.model": "encoders.cross_encoder",
    "cross_encoder.model_card": "storage.model_card",
    "cross_encoder.trainer": "training.trainers",
    "cross_encoder.training_args": "training.arguments",
    "cross_encoder.data_collator": "training.collator",
    "cross_encoder.fit_mixin": "encoders.cross_fit_mixin",
    "cross_encoder.util": "_deprecation",
    **{f"cross_encoder.evaluation.{path}": HOME[name] for name, path in _CROSS_EVALUATORS.items()},
    **{f"cross_encoder.losses.{path}": place(name, "cross_encoder.losses") for name, path in _CROSS_LOSSES.items()},
    "cross_encoder.modules.logit_score": "modules.logit_score",
    "sparse_encoder.model": "encoders.sparse_encoder",
    "sparse_encoder.model_card": "storage.model_card",
    "sparse_encoder.trainer": "training.trainers",
    "sparse_encoder.training_args": "training.arguments",
    "sparse_encoder.data_collator": "training.collator",
    "sparse_encoder.callbacks.splade_callbacks": "training.callbacks",
    **{f"sparse_encoder.losses.{path}": HOME[name] for name, path in _SPARSE_LOSSES.items()},
    **{f"sparse_encoder.evaluation.{path}": HOME[name] for name, path in _SPARSE_EVALUATORS.items()},
    **{f"sparse_encoder.losses.{name}": HOME[name] for name in _SPARSE_LOSSES},
    **{f"sparse_encoder.evaluation.{name}": HOME[name] for name in _SPARSE_EVALUATORS},
    "sparse_encoder.modules.splade_pooling": "modules.splade_pooling",
    "sparse_encoder.modules.sparse_auto_encoder": "modules.sparse_auto_encoder",
    "sparse_encoder.modules.sparse_static_embedding": "modules.sparse_static_embedding",
    "sparse_encoder.modules.mlm_transformer": "modules.mlm_transformer",
    "multi_vector_encoder.model": "encoders.multi_vector_encoder",
    "multi_vector_encoder.model_card": "storage.model_card",
    "multi_vector_encoder.trainer": "training.trainers",
    "multi_vector_encoder.training_args": "training.arguments",
    "multi_vector_encoder.data_collator": "training.collator",
    "multi_vector_encoder.scoring.colbert": "late_interaction",
    "multi_vector_encoder.scoring.xtr": "late_interaction",
    "multi_vector_encoder.modules.multi_vector_mask": "modules.multi_vector_mask",
    "multi_vector_encoder.modules.token_pooling": "modules.token_pooling",
    **{f"multi_vector_encoder.losses.{path}": HOME[name] for name, path in _MULTI_VECTOR_LOSSES.items()},
    **{f"multi_vector_encoder.evaluation.{path}": HOME[name] for name, path in _MULTI_VECTOR_EVALUATORS.items()},
    "util.similarity": "similarity",
    "util.decorators": "_deprecation",
    "util.deprecated_import": "_names",
    "sentence_transformer.fit_mixin": "encoders.fit_mixin",
    "fit_mixin": "encoders.fit_mixin",
    "util.retrieval": "search.exact",
    "util.hard_negatives": "search.hard_negatives",
    "util.dataset": "training.resolve_ids",
    "base.trainer": "training.trainer",
    "base.training_args": "training.arguments",
    "base.data_collator": "training.collator",
    "base.evaluation.evaluator": "evaluation.base",
    "base.evaluation.sequential": "evaluation.base",
    "sentence_transformer.trainer": "training.trainers",
    "sentence_transformer.data_collator": "training.collator",
    "trainer": "training.trainers",
    "data_collator": "training.collator",
    **{f"sentence_transformer.losses.{path}": HOME[name] for name, path in _LOSSES.items()},
    **{f"sentence_transformer.evaluation.{path}": HOME[name] for name, path in _EVALUATORS.items()},
    **{f"sentence_transformer.datasets.{path}": HOME[name] for name, path in _DATASETS.items()},
    **{f"sentence_transformer.readers.{path}": HOME[name] for name, path in _READERS.items()},
    "util.quantization": "quantization",
    "search.quantized": "search.quantized_search",  # where our first pages said it is
    # before version 5
    "cross_encoder.CrossEncoder": "encoders.cross_encoder",
    "sparse_encoder.SparseEncoder": "encoders.sparse_encoder",
    "sparse_encoder.models.MLMTransformer": "modules.mlm_transformer",
    "sparse_encoder.models.SparseAutoEncoder": "modules.sparse_auto_encoder",
    "sparse_encoder.models.SparseStaticEmbedding": "modules.sparse_static_embedding",
    "sparse_encoder.models.SpladePooling": "modules.splade_pooling",
    "SentenceTransformer": "encoders.sentence_transformer",
    "LoggingHandler": "util.logging",
    "similarity_functions": "similarity",
    "peft_mixin": "encoders.peft",
    "model_card": "storage.model_card",
    "evaluation.SimilarityFunction": "similarity",
    **{f"losses.{name}": HOME[name] for name in _LOSSES},
    "base.losses.gradcache": "losses.gradient_cache",
    "base.losses.merged_forward": "losses.merged_forward",
    **{f"cross_encoder.losses.{name}": place(name, "cross_encoder.losses") for name in _CROSS_LOSSES},
    **{f"cross_encoder.evaluation.{name}": HOME[name] for name in _CROSS_EVALUATORS},
    **{f"evaluation.{name}": HOME[name] for name in (*_EVALUATORS, "SentenceEvaluator", "SequentialEvaluator")},
    **{f"datasets.{name}": HOME[name] for name in _DATASETS},
    **{f"readers.{name}": HOME[name] for name in _READERS},
    "models.tokenizer": "modules.tokenizer",
    "models.tokenizer.WordTokenizer": "modules.tokenizer.word",
    "models.tokenizer.WhitespaceTokenizer": "modules.tokenizer.whitespace",
    "models.tokenizer.PhraseTokenizer": "modules.tokenizer.phrase",
    **{f"models.{name}": HOME[name] for name in _TEXT_MODULES.split()},
}


def home(name: str, package: str = "") -> Any:
    """The object behind a public name, as a package exports it."""
    return getattr(importlib.import_module(f"{ROOT}.{place(name, package)}"), name)


def saved_type(module_class: type) -> str:
    """The dotted path by which `modules.json` names a class; the existing library's path where it has one."""
    here = module_class.__module__.removeprefix(f"{ROOT}.")
    if module_class.__module__.startswith(f"{ROOT}."):
        for path, target in ALIASES.items():
            if target == here:
                return f"{ROOT}.{path}.{module_class.__name__}"
    if module_class.__module__.startswith(REMOTE):
        return f"{module_class.__module__.rpartition('.')[2]}.{module_class.__name__}"
    return f"{module_class.__module__}.{module_class.__name__}"


_known: ContextVar[dict[str, type]] = ContextVar("known", default={})  # noqa: B039  # never changed


@contextlib.contextmanager
def known_classes(classes: Iterable[type]) -> Iterator[None]:
    """Within the context saved models may name these classes, whoever's they are."""
    token = _known.set({saved_type(one): one for one in classes})
    try:
        yield
    finally:
        _known.reset(token)


def known_class(dotted: str) -> type | None:
    """The class that was named by `known_classes`."""
    return _known.get().get(dotted)


def find_class(dotted: str, source: Source, trust_remote_code: bool = False) -> type:
    """The class that a saved model names.

    Raises:
        ModelFormatError: if the name is not one of this library's and `source` may not run code, or there is no such
            class of modules (`UntrustedCodeError` in the first case).
    """
    from sentence_transformers.errors import ModelFormatError
    from sentence_transformers.util.misc import import_module_class

    if known := known_class(dotted):
        return known
    if dotted in FOREIGN:
        return home(FOREIGN[dotted])
    if not isinstance(dotted, str) or "." not in dotted:
        raise ModelFormatError(f"{source.name} names a module type {dotted!r}; expected a dotted class path.")
    try:
        found = import_module_class(
            dotted,
            source.name,
            trust_remote_code=trust_remote_code,
            revision=source.revision,
            token=source.token,
            cache_folder=source.cache_folder,
            local_files_only=source.local_files_only,
        )
    except (ImportError, AttributeError) as error:
        if not dotted.startswith(f"{ROOT}."):
            raise
        raise ModelFormatError(
            f"{source.name} names the module type {dotted!r}, which does not exist: {error}"
        ) from error
    if not (isinstance(found, type) and hasattr(found, "load") and hasattr(found, "save")):
        raise ModelFormatError(f"{source.name} names the module type {dotted!r}, which is not a class of modules.")
    return found


class FrontDoor(ModuleType):
    """A package whose public names stay what they are when a module of the same name is imported.

    `import sentence_transformers.SentenceTransformer` (a module path of old) would otherwise replace the class.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and name in self.__dict__.get("_public", ()):
            return
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_public", ()):
            value = home(name, self.__name__.removeprefix(f"{ROOT}."))
            super().__setattr__(name, value)
            return value
        if name.startswith("_"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        try:
            return importlib.import_module(f"{self.__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{self.__name__}.{name}":
                raise
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self.__dict__.get("_public", ())})


OWN_PACKAGES = {"losses", "evaluation", "cluster"}  # packages here that are front doors too: `open_door`


def open_door(name: str) -> None:
    """Make a package of this house export the public names that `PACKAGES` has for it."""
    module = sys.modules[name]
    public = PACKAGES[name.removeprefix(f"{ROOT}.")].split()
    module.__dict__.update(_public=frozenset(public), __all__=sorted(public))
    module.__class__ = FrontDoor


class _PackageLoader(importlib.abc.Loader):
    """Makes a package that only exports names."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        public = PACKAGES[spec.name.removeprefix(f"{ROOT}.")].split()
        module = FrontDoor(spec.name, f"Names exported by {spec.name}.")
        module._public = frozenset(public)
        module.__all__ = sorted(public)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run: names are found when they are asked for."""


class _AliasLoader(importlib.abc.Loader):
    """Puts the module that an alias stands for into its place.

    Elsewhere that module also has the public names that it imports for its own use, and code finds them there, as
    `from sentence_transformers.base.trainer import BatchSamplers`. They are looked up in `HOME`.
    """

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """An empty module to begin with, as Python makes it."""

    def exec_module(self, module: ModuleType) -> None:
        target = importlib.import_module(f"{ROOT}.{ALIASES[module.__name__.removeprefix(f'{ROOT}.')]}")
        target.__dict__.setdefault("__getattr__", functools.partial(passed_through, target.__name__))
        sys.modules[module.__name__] = target


def passed_through(module: str, name: str) -> Any:
    """A public name of this library that a module does not define."""
    from sentence_transformers import util

    if name in HOME:
        return home(name)
    if hasattr(util, name):
        return getattr(util, name)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


class _Finder:
    """Finds the module paths of `ALIASES` and `PACKAGES`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        inner = name.removeprefix(f"{ROOT}.")
        if inner == name:
            return None
        if inner in ALIASES:
            return importlib.machinery.ModuleSpec(name, _AliasLoader())
        if inner in PACKAGES and inner not in OWN_PACKAGES:
            return importlib.machinery.ModuleSpec(name, _PackageLoader(), is_package=True)
        return None


def install() -> None:
    """Put the finder in place, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # before Python finds the files of an aliased package


setup_deprecated_module_imports = install  # its name elsewhere
