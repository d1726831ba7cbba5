"""Both stages, by one trainer."""
