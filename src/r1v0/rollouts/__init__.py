"""Problems become graded groups of completions, for training and for evaluation."""
