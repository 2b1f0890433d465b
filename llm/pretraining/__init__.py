"""Pretraining of tiny-opt: its recipe, its tokenizer and its perplexity."""
