"""WaveNets that differ in their head only; all score the 16-bit grid."""
