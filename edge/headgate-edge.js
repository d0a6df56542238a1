#!/usr/bin/env -S node --max-semi-space-size=32
// 32 MB: messages live until their commit, and with Node's 16 MB a quarter of the time goes into copying them.
import '../dist/edge/main.js'
