"""The fpcb job: bending trajectories of flexible circuit boards, and which of them cracked."""
