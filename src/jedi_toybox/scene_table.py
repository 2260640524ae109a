"""The table of scenes: what sets each apart from the defaults in scenes.py, where the fields are explained.

A block is a phrase and, indented, its fields. A colour is hexadecimal sRGB, or several with "|" between: one
is drawn. A number is a value or a range "low..high". "like=x" takes over the fields of block x; blocks with a
name in brackets are only there for that.
"""

_TABLE = """
[indoors]
  light=fffaf0 ambient=787878 light_height=45..65

[outdoors]
  light=fff2d8 ambient=74808c cloud_amount=0.2..0.9

[night]
  light=8fa4d8 ambient=5a6684

on the beach
  like=[outdoors] sky_top=4f9be8|6fb5f0 sky_low=d8eef8 haze=3f8fc4 ground_a=e6cf9c ground_b=f4e4bd grain=3
  contrast=1.2 spot_a=fff6e8 spot_b=e89f80 spot_share=0.12 spot_cell=0.35 spot_size=0.12 region_round=1
  region_x=1.3..2 region_warp=0.8 edge_width=0.14 edge=ffffff outside_a=2f9fc0 outside_b=5fc4d8 waves=0.5
  fade=14 disc_size=4 disc_height=10..20 glow=0.3

in the snow
  sky_top=a4b8cc sky_low=e4ebf2 ground_a=ffffff ground_b=d4e0f2 grain=1 contrast=1.6 near_height=0
  near_rise=0.08..0.16 ridge_near=6a8478 ridge_count=70 flecks=0.45 fleck_cell=0.11 fleck_size=0.16 fade=16
  light=f4f6ff ambient=8c98a8

on a checkered floor
  like=[indoors] haze=a09a94 wall_x=1.6..2.4 wall_z=1.5..2 wall_a=d8c8b0|b8ccd8|d8b8b8 wall_b=d0c0a8
  wall_contrast=0.3 ground_a=f4f4f0 ground_b=e8e8e4 mark=181818|8a1c1c|1c3c8a tile_w=0.42 tile_h=0.42
  tile_check=1 fine=8

at night under the stars
  like=[night] sky_top=060a24 sky_low=1c2a5c haze=141e48 stars=0.35 disc=f4f0d8 disc_size=3..5 glow=0.2
  ground_a=1c2c5c ground_b=2c4078 grain=2.5 contrast=1.4 near_height=0 near_rise=0.1 ridge_near=0a1028
  ridge_count=40 fade=12

in the desert
  like=[outdoors] cloud_amount=0 sky_top=4a90d0 sky_low=f4dfb0 haze=e4b878 ground_a=d8944c ground_b=e8b06c
  grain=0.6 ripple=0.55 ripple_count=2.2 ripple_warp=2.5 mark=b0682c far_height=0 far_rise=0.16
  ridge_far=d89858 near_height=-0.01 near_rise=0.07 ridge_near=c8843c ridge_count=12 disc_size=5 glow=0.35
  fine=10

in a forest
  light=f4f4d8 ambient=687460 haze=3c5430 ground_a=5a4a30 ground_b=4c6a30 grain=2 contrast=2 spot_a=7a6a38
  spot_b=4f8038 spot_share=0.5 spot_cell=0.22 spot_relief=0.2 wall_x=2 wall_z=2..2.6 wall_a=5c4430
  wall_b=3a2a1c wall_contrast=1.5 brick_w=0.5 brick_spread=0.4 gap_w=0.15 wall_joint=5c7c44 crown=3f7a2c
  crown_from=1.2..1.7 wall_grain=2.5

on the grass
  like=[outdoors] sky_top=5a9fe4 sky_low=d4e8f8 haze=86b45c ground_a=3f9430 ground_b=66b83e grain=3
  contrast=1.8 near_height=0.005 near_rise=0.07 ridge_near=3f7c38 ridge_count=40 disc_size=3 glow=0.2

in a field of flowers
  like=[outdoors] sky_top=6cb0ec sky_low=e4f0f8 haze=8cb46c ground_a=3c8434 ground_b=58a040 grain=3
  contrast=1.5 spot_a=f03c5c|f0d030|b050e0 spot_b=f8f8f0|f080b0|f8b030 spot_share=0.85 spot_cell=0.2
  spot_size=0.34 spot_hue=0.15 fine=9 far_height=0 far_rise=0.09 ridge_far=7ca478 ridge_count=14

on a wooden floor
  like=[indoors] haze=806048 wall_x=1.6..2.4 wall_z=1.5..2 wall_a=e8dcc8|c8d4c8|dcd0e0 wall_b=dccfb8
  wall_contrast=0.3 ground_a=a8703c|8c5830|c09058 ground_b=8c5a2c|744820|a87840 grain=1.6 stretch=0.15
  contrast=2 tile_w=1.3 tile_h=0.22 tile_shift=0.37 tile_joint=0.012 tile_spread=0.35 joint=4c3018

in front of a brick wall
  like=[indoors] haze=888888 ground_a=8c8c88 ground_b=a4a4a0 grain=4 tile_w=0.6 tile_h=0.6 tile_joint=0.014
  tile_spread=0.15 joint=606060 turn=0 wall_x=1.5..2.6 wall_z=1.2..1.6 wall_a=a84c34|94503c|b8603c
  wall_b=8c3a28 wall_contrast=0.8 brick_w=0.36 brick_h=0.14 brick_shift=0.5 brick_spread=0.4 gap_w=0.014
  gap_h=0.014 wall_joint=d0c4b4

in the city
  like=[outdoors] sky_top=7a9cc0 sky_low=d4dce4 haze=8c9098 ground_a=9c9ca0 ground_b=b0b0b4 grain=5
  tile_w=0.5 tile_h=0.5 tile_joint=0.016 tile_spread=0.2 joint=6c6c70 turn=0 wall_x=2.4..3 wall_z=2..2.8
  wall_top=1 wall_step=2 wall_a=7c7470|607080 wall_b=6c6460 brick_w=0.3 brick_h=0.34 gap_w=0.06 gap_h=0.08
  wall_joint=a89c90|8494a4|b08c78 brick_lit=0.3 cap=c8e0f0 near_height=0.1 near_rise=0.3 ridge_near=8c98a8
  skyline=1 ridge_count=14

in the mountains
  like=[outdoors] sky_top=3f84d0 sky_low=c4dcf0 haze=94a8b4 ground_a=7c7c74 ground_b=6c8c54 grain=1.6
  contrast=3 spot_a=a4a4a0 spot_b=848480 spot_share=0.5 spot_cell=0.34 spot_size=0.3 spot_relief=0.35
  far_height=0.05 far_rise=0.22..0.32 ridge_far=5c6c88 cap=fcfcff cap_line=0.17 near_height=0 near_rise=0.07
  ridge_near=4f6c5c ridge_count=26

on the moon
  light=fffffa ambient=50505c sky_top=000004 sky_low=06060c haze=585858 stars=0.35 disc=4f8cdc
  disc_size=6..9 disc_height=9..16 ground_a=9c9c9c ground_b=b8b8b8 grain=2 contrast=1.2 spot_a=707070
  spot_b=848484 spot_share=0.8 spot_cell=0.75 spot_size=0.36 spot_relief=-0.55 fine=14 far_height=-0.01
  far_rise=0.08 ridge_far=8c8c8c ridge_count=10

under water
  light=c8f4f4 ambient=4c8c9c sky_top=48c0dc sky_low=0c5c90 haze=0c5c90 sky_curve=2 ground_a=7cb4a0
  ground_b=a4ccac grain=2.2 vein=0.8 mark=d8fcf0 fade=5 flecks=0.3 fleck_cell=0.13 fleck_size=0.24
  fleck_ring=1 fleck=d8f8ff fleck_strength=0.7 veil=1880b0 veil_amount=0.16 near_height=0 near_rise=0.14
  ridge_near=0a4c7c ridge_count=24

in the rain
  light=a0a8b4 ambient=6c7480 sky_top=4c545e sky_low=8c949c haze=7c8488 cloud=3c444c cloud_amount=0.9
  ground_a=485058 ground_b=646c74 grain=1.5 contrast=2 spot_a=98a4b0 spot_b=8894a0 spot_share=0.5
  spot_cell=0.3 spot_size=0.3 flecks=0.55 fleck_cell=0.05 fleck_size=0.14 fleck_long=5
  fleck_slant=0.15..0.35 fleck=c4d4e4 fleck_strength=0.75 veil=7c8894 veil_amount=0.1 near_height=0
  near_rise=0.08 ridge_near=545c60 ridge_count=30

at sunset
  light=ffb070 ambient=7c5870 light_height=18..30 sky_top=503c84 sky_low=ff8838|ff6c48 sky_curve=4.5
  haze=c85c44 cloud=e85c70 cloud_amount=0.9 disc=fff0a0 disc_size=5..7 disc_height=3..7 glow=0.7
  ground_a=5c3854 ground_b=a4584c grain=2 contrast=1.6 far_height=0 far_rise=0.12 ridge_far=6c3454
  ridge_count=12 near_height=-0.01 near_rise=0.06 ridge_near=40203c

on a tiled floor
  like=[indoors] haze=a0b4b8 wall_x=1.5..2.4 wall_z=1.4..1.9 wall_a=e4f0f0 wall_b=d4e4e8 brick_w=0.22
  brick_h=0.22 gap_w=0.01 gap_h=0.01 wall_joint=9cb4b8 brick_spread=0.08 ground_a=5cb4b0|5c94c8|78b078
  ground_b=6cc0bc tile_w=0.34 tile_h=0.34 tile_joint=0.02 tile_spread=0.35 joint=f4f4f0 fine=8

on a red carpet
  like=[indoors] haze=2c2420 ground_a=b01420 ground_b=c41c28 grain=8 region_x=0.8 region_z=99 edge=e0b040
  edge_width=0.09 outside_a=3c3430 outside_b=4c443c turn=-25..25 wall_x=1.9..2.6 wall_z=1.8..2.4
  wall_a=58483c wall_b=443830 wall_contrast=0.6 fold=0.12

in a kitchen
  like=[indoors] haze=c4b8a4 wall_x=1.5..2.2 wall_z=1.4..1.8 wall_a=f4e8b8|cce4cc|f0f0ec
  wall_b=f0e0a8|c0dcc0|e8e8e4 brick_w=0.62 brick_h=0.72 gap_w=0.025 gap_h=0.03 wall_joint=8c7860
  crown_from=99 ground_a=e8dcc4 ground_b=e0d4b8 mark=c89c6c tile_w=0.3 tile_h=0.3 tile_check=0.8
  tile_joint=0.01 joint=a08868 turn=0

in a library
  like=[indoors] light=ffe8c0 ambient=786c60 haze=4c3424 wall_x=1.5..2 wall_z=1.4..1.8 wall_a=7c4438
  wall_b=5c4840 wall_contrast=0.5 brick_w=0.1 brick_h=0.34 brick_shift=0.33 brick_hue=0.42 gap_w=0.006
  gap_h=0.035 wall_joint=3c2414 ground_a=6c4028 ground_b=583420 grain=1.6 stretch=0.2 contrast=1.8
  tile_w=0.9 tile_h=0.18 tile_shift=0.41 tile_joint=0.01 tile_spread=0.25 joint=2c180c

on an icy lake
  light=f0f8ff ambient=8098ac sky_top=88b4dc sky_low=e4f0f8 haze=d0e4f0 ground_a=8cc8e4 ground_b=b4e0f0
  grain=1.3 contrast=1.2 vein=0.9 mark=f4fcff fine=9 far_height=0 far_rise=0.16 ridge_far=b4c4d8
  ridge_count=14 near_height=0 near_rise=0.06 ridge_near=e8f0f8 region_round=1 region_x=2.2..3
  region_warp=0.7 outside_a=f4f8fc outside_b=e4ecf4

in autumn leaves
  light=ffecc8 ambient=78706c sky_top=98b4d0 sky_low=f0e4d0 haze=b8884c ground_a=94501c ground_b=b47024
  grain=3 contrast=2 spot_a=e08c1c spot_b=c83c1c spot_share=0.9 spot_cell=0.17 spot_size=0.36
  spot_relief=0.3 spot_hue=0.3 fine=9 near_height=0.01 near_rise=0.22 ridge_near=c87830 ridge_count=60
  flecks=0.12 fleck=dc7820 fleck_cell=0.14 fleck_size=0.18 fleck_hue=0.35

in a cave
  light=f8c890 ambient=584c50 haze=1c1614 ground_a=5c4c44 ground_b=3c302c grain=1.8 contrast=2.5
  spot_a=6c5c54 spot_b=4c403c spot_share=0.4 spot_relief=0.4 pool=0.8 wall_x=1.6..2.2 wall_z=1.5..2
  wall_a=6c5444 wall_b=1c1412 wall_contrast=2.6 wall_grain=1.7

in front of a blue wall
  like=[indoors] haze=b0b0b0 wall_x=1.5..2.6 wall_z=1.2..1.6 wall_a=2c6cc8|3480d8 wall_b=2864bc
  wall_contrast=0.4 ground_a=dcdcdc ground_b=d0d0d0 grain=5

on a striped rug
  like=[indoors] haze=8c7458 ground_a=f0e4c8 ground_b=e8dcc0 grain=9 mark=c03c34|2c6ca8|3c8c54 ripple=1
  ripple_count=2.6 ripple_hard=5 ripple_warp=0 region_x=1 region_z=1 edge_width=0.08 edge=503c2c
  outside_a=a88458 outside_b=9c7848 wall_x=1.7..2.4 wall_z=1.6..2.2 wall_a=e0d8e4|e8e0c8 wall_b=d8d0dc
  turn=-30..30

in space
  light=ffffff ambient=50586c sky_top=04041c sky_low=100828 haze=0a0618 cloud=7c2c9c|2c5cb0|b04070
  cloud_amount=0.75 stars=0.6 disc=e0a468|c86c54 disc_size=8..13 disc_height=10..18 ground_a=8c98a8
  ground_b=808c9c tile_w=0.45 tile_h=0.45 tile_joint=0.02 tile_spread=0.2 joint=48e0f0 region_round=1
  region_x=1.15 edge_width=0.08 edge=60f0ff outside_a=06041a outside_b=1c1040 fade=9

on a stage
  light=fff4d8 ambient=685868 haze=2c1410 ground_a=c08c54 ground_b=b07c48 grain=1.5 stretch=0.15
  contrast=1.4 tile_w=1.6 tile_h=0.2 tile_shift=0.37 tile_joint=0.01 joint=684420 pool=0.75 wall_x=2..2.6
  wall_z=1.4..1.8 wall_a=a8141c|841468 wall_b=8c0c18|6c0c54 fold=0.3 turn=0

by a lake
  like=[outdoors] sky_top=58a0e0 sky_low=dcecf4 haze=6c9cb4 ground_a=5ca040 ground_b=78b450 grain=2.6
  contrast=1.8 region_round=1 region_x=1.2..1.5 region_warp=0.9 edge_width=0.16 edge=a88c5c outside_a=3070a8
  outside_b=5c98c4 waves=0.45 fade=16 far_height=0.02 far_rise=0.12 ridge_far=5c8c74 ridge_count=16
  near_height=0.01 near_rise=0.05 ridge_near=2c5c34

on a road
  like=[outdoors] sky_top=70a8e0 sky_low=e0ecf4 haze=a0a890 ground_a=4c4c50 ground_b=585860 grain=8
  region_x=1 region_z=99 edge_width=0.08 edge=f4f4f0 outside_a=6c9c3c outside_b=88ac50 turn=-35..35
  tile_w=99 tile_h=99 spot_share=0 ripple=0 lane=0.05 mark=f8d040 far_height=0 far_rise=0.08
  ridge_far=6c8c5c ridge_count=18

in the jungle
  light=f0f8d0 ambient=587058 haze=1c4c1c ground_a=2c5c20 ground_b=4c4020 grain=2.4 contrast=3 spot_a=3ca030
  spot_b=186820 spot_share=0.8 spot_cell=0.3 spot_size=0.4 spot_relief=0.4 wall_x=1.7..2.2 wall_z=1.6..2
  wall_a=0c4c14 wall_b=4cb030 wall_contrast=3 wall_grain=2.6 crown_from=1.5 crown=38a028 flecks=0.06
  fleck=e83c5c fleck_cell=0.16 fleck_size=0.16 fleck_hue=0.8

in the fog
  light=d0d4d4 ambient=90989c sky_top=c8ced0 sky_low=d4d8d8 haze=d0d4d4 ground_a=788478 ground_b=8c988c
  grain=2 contrast=1.5 fade=3.6 near_height=0 near_rise=0.25 ridge_near=bcc4c4 ridge_count=40 veil=d4d8d8
  veil_amount=0.22

on mars
  light=ffd8b8 ambient=806058 sky_top=c89070 sky_low=ecc8a0 haze=c87850 ground_a=b04c28 ground_b=c86438
  grain=1.6 contrast=2 spot_a=843418 spot_b=a04424 spot_share=0.55 spot_cell=0.34 spot_size=0.3
  spot_relief=0.5 fine=9 far_height=0 far_rise=0.14 ridge_far=b06440 ridge_count=14

on hot lava
  light=ffb060 ambient=80504c sky_top=180808 sky_low=84240c haze=701c08 cloud=301818 cloud_amount=0.8
  ground_a=281c1c ground_b=3c2824 grain=1.6 contrast=1.6 vein=1 mark=ff8410 fine=10 far_height=0
  far_rise=0.4 ridge_far=281414 ridge_count=8 flecks=0.15 fleck=ffb030 fleck_cell=0.08 fleck_size=0.14

in a garden
  like=[outdoors] sky_top=68acec sky_low=dcecf8 haze=6c9c4c ground_a=5cac3c ground_b=6cbc48 grain=2.5
  mark=4c9830 ripple=0.8 ripple_count=1.2 ripple_hard=6 ripple_warp=0 wall_x=2..2.6 wall_z=1.7..2.2
  wall_top=0.7..1 wall_bump=0.2 wall_a=1c5c20 wall_b=3c8c34 wall_contrast=2.2 wall_grain=5 brick_w=0.2
  brick_h=0.2 brick_lit=0.14 cap=f04c70|f8f0f0|f0c83c gap_w=0.06 gap_h=0.06 wall_joint=2c7028

under neon lights
  light=f0a0f0 ambient=5878a0 sky_top=10081c sky_low=401c60 haze=20103c ground_a=1c1430 ground_b=281c44
  tile_w=0.4 tile_h=0.4 tile_joint=0.018 joint=f030d0|30e0f0 fine=9 wall_x=1.8..2.4 wall_z=1.7..2.2
  wall_a=1c1034 wall_b=241440 brick_w=0.7 brick_h=0.5 gap_w=0.02 gap_h=0.02 wall_joint=20d0f0|f040c0
  brick_lit=0.08 cap=f0e040 turn=0
"""


def _parse(table: str) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for block in table.strip().split("\n\n"):
        name, *lines = block.splitlines()
        fields = dict(item.split("=") for line in lines for item in line.split())
        rows[name] = rows.get(fields.pop("like", ""), {}) | fields
    return {name: row for name, row in rows.items() if not name.startswith("[")}


ROWS: dict[str, dict[str, str]] = _parse(_TABLE)
