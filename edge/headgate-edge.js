#!/usr/bin/env node
import '../dist/edge/main.js'
