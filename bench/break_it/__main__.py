"""The command: python -m break_it. Light, since worker processes that are spawned import it again."""

if __name__ == "__main__":
    from break_it.run import main

    main()
