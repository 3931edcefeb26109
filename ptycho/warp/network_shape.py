"""The fixed numbers of the network that predicts a warp, for every writer and reader of its weights."""

from __future__ import annotations

#: side of its input images, px, and control points on a side of its flow
SIDE, POINTS = 128, 8
#: bound of its flow, as a share of half the side
FLOW_BOUND = 0.2
#: features lie STRIDE px apart and are compared with those up to REACH steps away
REACH, STRIDE = 3, 4
#: strides of the 3 x 3 convolutions after the first of the trunk
TRUNK_STRIDES = (2, 1, 2, 1)
#: heads have many inputs; this keeps their first steps short
WHOLE_GAIN, FLOW_GAIN = 0.01, 0.05
#: side of the windows whose mean is taken out of the images, px
WINDOW_PX = 24
