"""Errors of this room."""

from __future__ import annotations

from experiments_manager.common.errors import UserError


class ExplainError(UserError):
    """A model, input or method that does not go together; the message says which would."""


NO_GRADIENT = (
    "{method}: no gradient of the score reaches what is looked at: on the way the model rounds, compares or looks up "
    "whole numbers. Expected operations that can be differentiated. Use occlusion or shap, which need none."
)
