"""Labelled images of the usual benchmarks of vision-language models, read from where they lie."""
