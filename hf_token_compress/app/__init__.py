"""The demo in the browser: a page that asks a model with all and with some visual tokens."""
