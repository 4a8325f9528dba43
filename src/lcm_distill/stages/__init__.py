"""The work of a run, stage by stage: plan what there is to do, do it, say how far it has come."""
