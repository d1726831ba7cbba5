"""An evaluation as a page, plots, tables and a model card."""
