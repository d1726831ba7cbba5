"""The command: python -m robustness. Light, since worker processes that are spawned import it
again.
"""

if __name__ == "__main__":
    from tests.robustness.run import main

    main()
