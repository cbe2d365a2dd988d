"""Problems, prompts and rewards: text only, no torch."""
