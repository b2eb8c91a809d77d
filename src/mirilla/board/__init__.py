"""Deploys a model to a Vision Kit over SSH, and holds the program that runs there.

link        scripts and files over the system's OpenSSH
checks      the state of a kit, as findings with remedies
payload     the files of a version: model, model.json, program
install     versions on the kit: install, roll back, remove
service     the systemd unit
bundle      a version as a .zip, for kits without network
kit/        the program for the kit: Python 3.5, copied there and never imported here
"""
