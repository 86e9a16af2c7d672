"""ATTACKS. The adversary that proves each refusal."""
