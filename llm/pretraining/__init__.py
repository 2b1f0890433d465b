"""Pretraining of tiny-opt: its corpus, its tokenizer and its perplexity."""
