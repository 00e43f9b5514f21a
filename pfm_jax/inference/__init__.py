"""What training makes: a detector, its threshold, artefacts of it."""
