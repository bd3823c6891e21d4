"""How boards join: invitations, certificates, the join port, and finding a gateway."""
