"""From a hospital's files to de-identified ones: sources, the allow-list, pseudonyms, clean pixel data."""
