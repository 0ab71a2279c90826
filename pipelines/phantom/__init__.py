"""Radiographs that are drawn, not taken: a cohort to show the whole pipeline on, and a task to pretrain on without a network."""
