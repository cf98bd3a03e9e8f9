"""The Hugging Face Hub: models and runs by name, hf:USER/NAME, to load and to hand on (extra hub)."""
