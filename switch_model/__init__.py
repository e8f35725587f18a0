"""Switch Transformers (top-1 mixture of experts): the model, its routing record, and a predictor.

from switch_model import Predictor; Predictor.from_checkpoint("assets/models/ag_news")("Oil prices rose.").label
"""

from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

from switch_model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from switch_model.config import SwitchConfig
from switch_model.interventions import Interventions
from switch_model.modeling import SwitchForMaskedLM, SwitchForSequenceClassification
from switch_model.predictor import Prediction, Predictor
from switch_model.routing import Routing

AutoConfig.register(SwitchConfig.model_type, SwitchConfig)
AutoModelForSequenceClassification.register(SwitchConfig, SwitchForSequenceClassification)
AutoModelForMaskedLM.register(SwitchConfig, SwitchForMaskedLM)

__all__ = [
    "CheckpointError",
    "Interventions",
    "Prediction",
    "Predictor",
    "Routing",
    "SwitchConfig",
    "SwitchForMaskedLM",
    "SwitchForSequenceClassification",
    "load_checkpoint",
    "save_checkpoint",
]
