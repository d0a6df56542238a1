#!/usr/bin/env node
import '../dist/cloud/main.js'
