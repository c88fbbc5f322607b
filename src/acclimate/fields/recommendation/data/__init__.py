"""Clicks and the fields they come with: public layouts, vocabularies, splits, and made-up clicks of known odds."""
