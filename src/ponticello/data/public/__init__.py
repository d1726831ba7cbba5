"""Readers for public music data sets, one file a family; `sets` lists them all."""
