"""Known vulnerabilities of the locked packages, by pip-audit: a report, not a gate.

``make audit`` runs it in an environment of its own. Exit status 1 if anything was found.
"""

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.lock"


def main() -> int:
    words = ["-m", "pip_audit", "--requirement", LOCK, "--disable-pip", "--require-hashes"]
    words += ["--format", "json", "--progress-spinner", "off"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        print(f"audit: pip-audit gave no report: {done.stderr.strip()[-300:]}")
        return 0
    unknown = [package for package in packages if "skip_reason" in package]
    found = [package for package in packages if package.get("vulns")]
    print(f"audit: {len(packages)} packages are locked, {len(packages) - len(unknown)} looked up,")
    print(f"       {len(found)} with known vulnerabilities")
    if unknown:
        print(f"       {len(unknown)} not: {unknown[0]['skip_reason'].split(':')[0]}")
    for package in found:
        for vulnerability in package["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no release yet"
            print(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed: {fixed}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
