"""What a command line needs: options, records and journals of a run, progress, files and locks."""
