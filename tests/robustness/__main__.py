"""The command: python -m tests.robustness. Spawned workers import this file, so it is light."""

if __name__ == "__main__":
    from tests.robustness.run import main

    main()
