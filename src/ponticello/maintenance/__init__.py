"""Checks of a library and its environment, and erasing a user.

doctor             runs all checks
findings           one finding of a check
check_environment  versions, decoders, memory and disk
check_library      tables, runs and index
erase_user         removes a user from a library
"""
