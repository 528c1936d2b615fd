"""`vidkit doctor`: this machine, looked over. One file for each thing examined; torch is not loaded here."""
