"""What the SPIFFE standards define: ids, bundles, X509-SVIDs."""
