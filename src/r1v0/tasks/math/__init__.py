"""Mathematics: gold answers, the answer that a text states, and whether the two are equal."""
