"""What all command lines share: exit codes, signals, arguments, and how a wrong option is refused."""
