"""What OpenVPN packets are made of: opcodes, identifiers, the control packet codec, the replay window."""
