"""What recipes of tiny models in the tests share."""

TINY_UNET = {
    "sample_size": 4,
    "block_out_channels": [16, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}
