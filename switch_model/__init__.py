"""Switch Transformers (top-1 mixture of experts): the model, its routing record, and a predictor.

from switch_model import Predictor; Predictor.from_checkpoint("assets/models/ag_news")("Oil prices rose.").label
"""

from switch_model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from switch_model.config import SwitchConfig
from switch_model.inference.classifier import Prediction, Predictor
from switch_model.inference.mask_filler import Filling, MaskFiller
from switch_model.inference.text_generator import Generation, TextGenerator
from switch_model.inference.token_classifier import TokenClassifier, TokenPrediction
from switch_model.interventions import Interventions
from switch_model.models.auto import register
from switch_model.models.causal_lm import SwitchForCausalLM
from switch_model.models.conditional_generation import SwitchForConditionalGeneration
from switch_model.models.encoder import SwitchEncoderModel
from switch_model.models.encoder_decoder import SwitchModel
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from switch_model.routing import Routing
from switch_model.topk_routing import TopKRouting

register()

__all__ = [
    "CheckpointError",
    "Filling",
    "Generation",
    "Interventions",
    "MaskFiller",
    "Prediction",
    "Predictor",
    "Routing",
    "SwitchConfig",
    "SwitchEncoderModel",
    "SwitchForCausalLM",
    "SwitchForConditionalGeneration",
    "SwitchForMaskedLM",
    "SwitchForSequenceClassification",
    "SwitchModel",
    "TextGenerator",
    "TokenClassifier",
    "TokenPrediction",
    "TopKRouting",
    "load_checkpoint",
    "save_checkpoint",
]
