"""What training costs: of a study's trials, measured; of an adaptation, its memory, FLOPs and throughput."""
