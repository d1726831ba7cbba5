"""The commands, one small file a group."""
