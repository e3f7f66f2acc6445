"""What others published, beside what a sweep measured."""
