# All rules in one place, for who needs many of them: each file holds one idea.

from pyvirt._core.protection.descriptors cimport *
from pyvirt._core.protection.flags cimport *
from pyvirt._core.protection.interrupts cimport *
from pyvirt._core.protection.io cimport *
from pyvirt._core.protection.segments cimport *
from pyvirt._core.protection.sensitive cimport *
from pyvirt._core.protection.tables cimport *
from pyvirt._core.protection.transfers cimport *
from pyvirt._core.protection.verdict cimport *
from pyvirt._core.protection.visibility cimport *
