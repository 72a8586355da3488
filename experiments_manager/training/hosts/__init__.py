"""Several hosts that train one model: who takes part, what they agree on, and noticing that one is gone."""
