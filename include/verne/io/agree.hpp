#pragma once
#include "verne/comm/agree.hpp"
