"""The quickstart: the whole pipeline on generated lesions, in minutes, on two cores."""
