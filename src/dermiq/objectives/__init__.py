"""What is optimised: losses, advantages and the auxiliary objectives."""
